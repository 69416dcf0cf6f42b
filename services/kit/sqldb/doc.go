// Package sqldb opens the database of one room: a SQLite file by default,
// PostgreSQL by URL, with the same SQL text for both. A database that Open
// returns is reachable and has every migration applied.
//
// What serves both dialects:
//
//   - Parameters are written $1, $2 and may be repeated and reordered.
//   - ON CONFLICT, RETURNING and common table expressions are the same.
//   - Columns are TEXT, BIGINT, BOOLEAN or DOUBLE PRECISION. In a migration,
//     {{BYTES}} is the type of a byte string (BLOB or BYTEA) and {{ID}} that of
//     a row number given by the database. SQLite may give the number of the
//     newest row again once that row is deleted.
//   - What one dialect alone has, such as a trigger, stands in a migration between the
//     lines "-- only: sqlite", "-- only: postgres" and "-- only: end".
//   - A moment is a BIGINT of microseconds since 1970, see Micros and Time.
//   - Claiming and locking rows differ in one clause, see Dialect.SkipLocked and
//     Dialect.ForUpdate.
//
// A migration is a goose file, <number>_<name>.sql, at the root of
// Config.Migrations. A line
//
//	-- oldest: 61
//
// in it says that a binary which knows the migrations up to 61 may run on the
// database once it is applied: it reads and writes there without an error, and
// nothing that the newer one has stored comes to harm by it. Without the line
// that is the migration itself. So replicas of two versions share a database
// while one replaces the other, and the older one may come back.
package sqldb
