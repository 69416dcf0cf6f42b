// Package trigger says what an event asks for, from the event and from what the
// server has set alone. It asks nobody and stores nothing.
//
//   - The table of kinds says which events matter, and how each is read. No event
//     fits two rows.
//   - The table of triggers says what is built, by what happened and by the base
//     branch.
//   - An Intent is one thing that an event, or a call, asks for; a Decision in its
//     place says why nothing is done.
package trigger
