// Command shop sells to itself once, and prints the receipt.
package main

import (
	"encoding/json"
	"html/template"
	"log"
	"os"
	"strings"

	"example.org/till"
)

var receipt = template.Must(template.New("").Parse("{{range .Items}}<p>{{.Name}}: {{.Price}}\n{{end}}{{.Greeting}} {{.Sum}}\n"))

func main() {
	var items []till.Item
	order := strings.NewReader(`[{"name": "tea", "price": 250}, {"name": "<cake>", "price": 399}]`)
	if err := json.NewDecoder(order).Decode(&items); err != nil {
		log.Fatal(err)
	}
	sold := struct {
		Items    []till.Item
		Greeting string
		Sum      int
	}{items, greeting, till.Sum(items)}
	if err := receipt.Execute(os.Stdout, sold); err != nil {
		log.Fatal(err)
	}
}
