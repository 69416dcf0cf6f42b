// Package testreport reads what tests and linters write about how they went: JUnit
// XML, what `go test -json` prints, SARIF.
//
// The files come from builds, and those may be anybody's. Each is read as a stream,
// within bounds of memory, depth and number whatever it holds; no entity is expanded
// and no document type is read. What was read before a file turned out to be broken
// has been handed on. An error says, for people, why a file is no report.
package testreport
