// Package kittest holds what the tests of every room need: both databases,
// golden files, a clock, a log that goes to the test.
package kittest
