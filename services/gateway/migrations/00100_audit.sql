-- oldest: 1
-- +goose Up
-- What people did here, until the scheduler has it in the audit log.
CREATE TABLE audit_handover (
    id    TEXT NOT NULL PRIMARY KEY,
    entry {{BYTES}} NOT NULL
);

-- +goose Down
DROP TABLE audit_handover;
