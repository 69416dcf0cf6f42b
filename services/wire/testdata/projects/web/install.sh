#!/bin/sh
# Makes node_modules of the vendored packages, each as its own install.sh says, unless it is
# there already and of the same lock file.
set -e
lock=$(sha256sum package-lock.json)
if [ "$(cat node_modules/.lock 2>/dev/null)" = "$lock" ]; then
	echo "node_modules is up to date"
	exit
fi
rm -rf node_modules
for package in vendored/*/; do
	name=$(basename "$package")
	mkdir -p "node_modules/$name"
	cp "$package"/*.js "node_modules/$name"
	(cd "node_modules/$name" && sh "../../$package/install.sh")
	echo "installed $name"
done
echo "$lock" >node_modules/.lock
