package buildfile

import _ "embed"

// Schema is the JSON Schema of the file, for editors. It takes what Parse
// takes. What it cannot say, such as that no key comes twice, Parse alone
// refuses.
//
//go:embed schema.json
var Schema string
