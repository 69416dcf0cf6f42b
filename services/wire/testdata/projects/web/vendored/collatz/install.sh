awk 'BEGIN {
	for (n = 1; n < 80000; n++) {
		steps = 0
		for (at = n; at != 1; steps++) at = at % 2 ? 3 * at + 1 : at / 2
		print steps " " n ","
	}
}' >table.js
