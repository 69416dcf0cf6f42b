// Package environment lets one deploy at a time into an environment, in order, and
// never an older commit over a newer one.
//
// A deploy holds its environment from before it starts until its container is
// gone. Right before it starts GitHub is asked whether what was deployed there
// contains its commit; since nothing else can be deployed meanwhile, the answer
// stays true. Where GitHub cannot be asked, the deploy waits.
package environment
