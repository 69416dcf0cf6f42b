// Exports the primes that install.sh found.
module.exports = require("./table.js");
