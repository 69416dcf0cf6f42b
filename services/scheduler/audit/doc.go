// Package audit keeps what people did: an entry is stored in the transaction of what it
// tells of, so that neither is there without the other, and is never changed.
//
// There is one list, the scheduler's, since most of what people do is done here: it is
// filtered and read page by page where all of it lies. What is the gateway's, such as a
// redelivery or a person's token, the gateway writes down in its own transaction and hands
// over until this room has taken it, each once by its handover_id.
//
// An entry names things and never holds a value that was given: no secret, no token and no
// input of a build.
package audit
