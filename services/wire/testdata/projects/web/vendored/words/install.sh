mkdir -p of bin
awk 'BEGIN {
	for (n = 0; n < 1000; n++) {
		file = "of/" n ".js"
		print "module.exports = \"" sprintf("%c%c%c", 97 + n % 26, 97 + n / 26 % 26, 97 + n / 676) "\";" >file
		close(file)
	}
}'
cp ../../vendored/words/greet.sh .
chmod 755 greet.sh
ln -s ../greet.sh bin/greet
