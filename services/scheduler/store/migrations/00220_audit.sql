-- oldest: 35
-- An older binary writes nothing here: what is done by it is not in the audit log.
-- +goose Up

-- What people did.
CREATE TABLE audit_entries (
  number {{ID}},
  handover_id TEXT UNIQUE, -- what names it at the gateway, which has handed it over; NULL: it is the scheduler's own
  create_time BIGINT NOT NULL,
  action BIGINT NOT NULL,
  actor TEXT NOT NULL,
  origin BIGINT NOT NULL,
  credential TEXT NOT NULL,
  address TEXT NOT NULL,
  agent TEXT NOT NULL,
  repository_id BIGINT NOT NULL, -- 0: of no repository, or of one that is known by its name alone
  repository TEXT NOT NULL, -- owner/name as it was then
  build_id TEXT NOT NULL,
  environment TEXT NOT NULL,
  subject TEXT NOT NULL,
  detail TEXT NOT NULL,
  refused BOOLEAN NOT NULL
);
CREATE INDEX audit_entries_time ON audit_entries (create_time, number);
CREATE INDEX audit_entries_repository ON audit_entries (repository_id, create_time, number);
CREATE INDEX audit_entries_actor ON audit_entries (lower(actor), create_time, number);

-- Entries before this time may be deleted. It holds up mistakes, not who may write to the database.
CREATE TABLE audit_retention (
  only_row BIGINT NOT NULL PRIMARY KEY,
  before_time BIGINT NOT NULL
);
INSERT INTO audit_retention (only_row, before_time) VALUES (1, 0);

-- only: sqlite
-- +goose StatementBegin
CREATE TRIGGER audit_entries_stay BEFORE UPDATE ON audit_entries BEGIN
  SELECT RAISE(ABORT, 'the audit log is never changed');
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER audit_entries_are_kept BEFORE DELETE ON audit_entries
WHEN OLD.create_time >= (SELECT before_time FROM audit_retention) BEGIN
  SELECT RAISE(ABORT, 'the audit log is never changed');
END;
-- +goose StatementEnd
-- only: postgres
-- +goose StatementBegin
CREATE FUNCTION audit_entries_stay() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' THEN
    IF OLD.create_time < (SELECT before_time FROM audit_retention) THEN
      RETURN OLD;
    END IF;
  END IF;
  RAISE EXCEPTION 'the audit log is never changed';
END
$$;
-- +goose StatementEnd
CREATE TRIGGER audit_entries_stay BEFORE UPDATE OR DELETE ON audit_entries FOR EACH ROW EXECUTE FUNCTION audit_entries_stay();
CREATE TRIGGER audit_entries_are_kept BEFORE TRUNCATE ON audit_entries FOR EACH STATEMENT EXECUTE FUNCTION audit_entries_stay();
-- only: end
