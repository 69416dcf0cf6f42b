package doctor

import (
	"net/url"
	"reflect"
	"strings"
)

// shortestSecret is the length from which a value is taken for one: a shorter one
// stands in too many words.
const shortestSecret = 6

// hider returns what takes the secrets of some settings out of a text.
func hider(all any) func(string) string {
	var pairs []string
	for _, secret := range secretsOf(reflect.ValueOf(all)) {
		values := []string{secret}
		if address, err := url.Parse(secret); err == nil && address.User != nil {
			if password, set := address.User.Password(); set {
				values = append(values, password)
			}
		}
		for _, value := range values {
			if len(value) >= shortestSecret {
				pairs = append(pairs, value, "***")
			}
		}
	}
	return strings.NewReplacer(pairs...).Replace
}

// secretsOf are the values of all fields that say they hold one.
func secretsOf(v reflect.Value) (found []string) {
	if v.Kind() != reflect.Struct {
		return nil
	}
	for n := range v.NumField() {
		field := v.Type().Field(n)
		if _, secret := field.Tag.Lookup("secret"); !secret {
			found = append(found, secretsOf(v.Field(n))...)
			continue
		}
		switch value := v.Field(n); value.Kind() {
		case reflect.String:
			found = append(found, value.String())
		case reflect.Slice:
			for i := range value.Len() {
				found = append(found, value.Index(i).String())
			}
		case reflect.Map:
			for _, key := range value.MapKeys() {
				found = append(found, value.MapIndex(key).String())
			}
		default:
		}
	}
	return found
}
