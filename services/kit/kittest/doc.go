// Package kittest holds what the tests of every room need: both databases,
// differences that can be read, golden files, a clock, free ports, a log that goes to the
// test.
package kittest
