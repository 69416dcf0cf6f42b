-- oldest: 35
-- +goose Up

-- Comments that asked for something: what was decided, and how the reporter is still to be asked to answer.
CREATE TABLE answers (
  comment TEXT PRIMARY KEY, -- repository id/comment id
  decision {{BYTES}} NOT NULL, -- forge.event.v1.Decision
  create_time BIGINT NOT NULL,
  due_time BIGINT NOT NULL,
  tries BIGINT NOT NULL,
  traceparent TEXT NOT NULL,
  request {{BYTES}} NOT NULL -- forge.reporter.v1.AnswerRequest
);
CREATE INDEX answers_due ON answers (due_time) WHERE due_time < 9223372036854775807;
