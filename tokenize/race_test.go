//go:build race

package tokenize_test

const race = true
