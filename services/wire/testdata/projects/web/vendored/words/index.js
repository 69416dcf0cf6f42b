// Exports a thousand words, each a file.
module.exports = (n) => require("./of/" + n + ".js");
