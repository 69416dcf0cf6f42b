// Package till adds up what is bought.
package till

// Item is something to buy, at a price in cents.
type Item struct {
	Name  string `json:"name"`
	Price int    `json:"price"`
}

// Sum is what the items cost together.
func Sum(items []Item) int {
	sum := 0
	for _, item := range items {
		sum += item.Price
	}
	return sum
}
