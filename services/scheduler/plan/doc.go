// Package plan makes one decision of what an event or a call asks for, in one
// transaction.
//
//   - What is built once stays built: the same commit for the same action is built
//     again only where that build was cancelled, or a person asks.
//   - A merge, a press of a button and a comment are one wish each, whichever
//     deliveries tell of them: GitHub signs what a delivery holds, not its id.
//   - Who may ask, GitHub says at that moment; what an event tells of it can be
//     stale.
package plan
