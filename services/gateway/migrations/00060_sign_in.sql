-- oldest: 1
-- +goose Up
-- Who has signed in, by GitHub's id of theirs, and what lets Forge ask GitHub as
-- them: empty once GitHub has taken that back.
CREATE TABLE people (
    id      BIGINT NOT NULL PRIMARY KEY,
    login   TEXT NOT NULL,
    key_id  TEXT NOT NULL DEFAULT '',
    sealed  {{BYTES}},                -- a token and what refreshes it
    ends    BIGINT NOT NULL DEFAULT 0, -- of the token; 0: never
    version BIGINT NOT NULL DEFAULT 0, -- one more with each token
    lease   BIGINT NOT NULL DEFAULT 0  -- until when somebody refreshes it
);

-- Browsers that are signed in, and tokens that people have made. Either is known by
-- the hash of its secret alone.
CREATE TABLE sessions (
    hash   TEXT NOT NULL PRIMARY KEY,
    person BIGINT NOT NULL REFERENCES people (id) ON DELETE CASCADE,
    agent  TEXT NOT NULL,
    made   BIGINT NOT NULL,
    seen   BIGINT NOT NULL,
    ends   BIGINT NOT NULL
);
CREATE INDEX sessions_person ON sessions (person);
CREATE INDEX sessions_ends ON sessions (ends);

CREATE TABLE personal_tokens (
    id     TEXT NOT NULL PRIMARY KEY,
    hash   TEXT NOT NULL UNIQUE,
    person BIGINT NOT NULL REFERENCES people (id) ON DELETE CASCADE,
    name   TEXT NOT NULL,
    made   BIGINT NOT NULL,
    seen   BIGINT NOT NULL,
    ends   BIGINT NOT NULL
);
CREATE INDEX personal_tokens_person ON personal_tokens (person);
CREATE INDEX personal_tokens_ends ON personal_tokens (ends);

-- States of sign-ins that are over: each is good once.
CREATE TABLE used_states (
    hash TEXT NOT NULL PRIMARY KEY,
    ends BIGINT NOT NULL
);

-- +goose Down
DROP TABLE used_states;
DROP TABLE personal_tokens;
DROP TABLE sessions;
DROP TABLE people;
