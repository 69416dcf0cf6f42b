awk 'BEGIN {
	print "module.exports = ["
	for (n = 2; n < 300000; n++) {
		prime = 1
		for (d = 2; d * d <= n; d++) if (n % d == 0) { prime = 0; break }
		if (prime) print n ","
	}
}' >table.js
