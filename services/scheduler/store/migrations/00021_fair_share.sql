-- oldest: 20
-- +goose Up

-- The queue is read by repository: the oldest of each line is a step into this index, however long the line.
DROP INDEX builds_queue;
CREATE INDEX builds_queue ON builds (state, priority, repository_id, number);

-- Few attempts are to be stopped; the rest stays out.
DROP INDEX attempts_stop;
CREATE INDEX attempts_stop ON attempts (stop_time) WHERE stop_time < 9223372036854775807;
