// Package outbox tells the reporter, at least once, what it is to tell GitHub: how
// builds stand, which promotions are asked for and how comments are answered. Of
// one target only the newest is told.
package outbox
