// Package bulletin tells others outside, at least once, what becomes of builds and
// deploys: each address of each build in order, whatever another address does. An event
// is stored in the change that it tells of.
package bulletin
