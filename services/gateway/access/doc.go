// Package access says who may see and do what. One table has a rule for each method of
// the JSON API; pages go through the same methods, so that there is no second rule.
//
// Decisions that bind this package:
//
//   - A repository's builds are seen by whoever can read it on GitHub, which is asked as
//     that person; a public one's by anybody. What changes something needs write access.
//   - An answer counts for two minutes. Without one, for whatever reason, nothing is
//     shown. One that refuses a call is asked for again first, every five seconds at
//     most; lists alone leave out by what is remembered.
//   - A repository is known by GitHub's id of it wherever Forge knows that: one that
//     takes an old one's name is another.
//   - A method without a rule is the operators', who are named in FORGE_ADMINS or have
//     the admin token.
//   - Where nobody can sign in, the rooms alone decide, by the admin token.
package access
