module github.com/refersam/refersam

go 1.26
