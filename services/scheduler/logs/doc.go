// Package logs keeps what builds print. Whoever reads sees one log, wherever it
// lies: in chunks while a build runs, in one blob after its end.
package logs
