// Package web shows people what they follow links to: builds with their logs, tests and
// artifacts, and the lists of what there is. Each page is HTML made here, which needs no
// script to be read; scripts make it live.
//
//   - What builds and GitHub send is text on a page, never markup: html/template escapes
//     it, and the policy of every page runs nothing that is not Forge's own.
//   - A page that cannot be made says so, and what to do.
package web
