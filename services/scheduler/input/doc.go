// Package input keeps what somebody gives for a build by hand. A value is data from end
// to end: it is held against what .forge.yml asks for, and reaches commands as a variable,
// never as a part of any text. A secret one is encrypted for its build alone, shown
// nowhere, and gone once the build has ended.
package input
