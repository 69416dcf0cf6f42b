// Package gateway is where GitHub and people meet Forge. A webhook delivery that
// was answered with 200 is on disk, once, and every receiver its event concerns
// gets it, until it has decided or has failed for a day; what each decided can be
// read. The same port serves the JSON API and the pages.
//
// Decisions that bind this room:
//
//   - A delivery is stored before it is understood. Decoding, which can fail and
//     costs more than all the rest, happens on the way to a receiver.
//   - GitHub signs the body alone. What the event header claims is believed only
//     as far as the payload fits it; what does not fit is malformed.
//   - A delivery without an X-GitHub-Delivery, or with one that could stand in no
//     address, is known by the hash of its event and body: sent by hand twice, it
//     is still stored once.
//   - A proxy writes X-Forwarded-For or Forwarded and passes the other on as the
//     client sent it, so one alone is believed, or both where they agree.
//   - A receiver that calls a request invalid has decided: no later try would be
//     another request. Every other error is tried again.
package gateway
