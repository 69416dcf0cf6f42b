// Package tree lists files and folders, reads them as one stream, and makes them
// anew from it: with their modes, links and times, and nowhere but where it is told.
package tree
