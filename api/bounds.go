package api

// The bounds of requests. The tags of the types in this package repeat them,
// because a tag cannot name a constant; a test compares the two.
const (
	// MaxItems is how many pictures one request may have.
	MaxItems = 64
	// MaxBatchBytes bounds the bytes of a request with several pictures may have.
	MaxBatchBytes = 100 << 20
	// MaxPrompts bounds the prompts of one picture and the fields of a form. It is
	// far more than any valid request has, because the service accepts fewer
	// phrases.
	MaxPrompts = 512
	// MaxFormats bounds the formats that a request may ask for.
	MaxFormats = 32
	// MaxArea bounds the areas of options, in pixels: a picture cannot have more.
	MaxArea = 1 << 28
	// MaxTolerance bounds the tolerance of polygons, in pixels.
	MaxTolerance = 1000
	// MaxID is how many characters the id of a prompt, an item or an experimental
	// unit may have.
	MaxID = 128
	// MaxDeadlineMS bounds deadline_ms: a day.
	MaxDeadlineMS = 24 * 60 * 60 * 1000
	// MaxComment is how many bytes the comment of feedback may have.
	MaxComment = 2000
	// DefaultPage and MaxPage bound the entries of a page of a list.
	DefaultPage = 20
	MaxPage     = 100
	// MaxEvent is the largest id of an event. JavaScript cannot represent larger
	// integers exactly.
	MaxEvent = 1 << 53
)

// The headers of requests and answers that are not HTTP's own.
const (
	HeaderRequestID      = "X-Request-Id"
	HeaderUnitID         = "X-Unit-Id"
	HeaderIdempotencyKey = "Idempotency-Key"
	HeaderReplayed       = "Idempotency-Replayed"
	HeaderEventID        = "Last-Event-ID"
	HeaderPrefer         = "Prefer"
	HeaderApplied        = "Preference-Applied"
)

// PreferAsync is the preference for a job (RFC 7240, section 4.1).
const PreferAsync = "respond-async"

// The forms of ids, as regular expressions.
const (
	RequestIDPattern      = `^[A-Za-z0-9._:-]{1,128}$`
	ImageIDPattern        = `^img_[0-9a-f]{64}$`
	IdempotencyKeyPattern = `^[\x21\x23-\x7e]{1,255}$`
)

// The values of the option keep.
const (
	KeepAll     = "all"
	KeepLargest = "largest"
)

// The routes without a version.
const (
	RouteLive  = "/livez"
	RouteReady = "/readyz"
	RouteSpec  = "/openapi" // .json and .yaml
	RouteDocs  = "/docs"
)

// The fields of a form that hold the picture: the file itself, the id of a stored
// image, or an address.
const (
	FieldImage    = "image"
	FieldImageID  = "image_id"
	FieldImageURL = "image_url"
)

// FieldNames are the other fields of a form for masks. They are also the parameters
// of the query if the body is a picture.
var FieldNames = []string{
	"phrase", "variant", "format", "threshold", "min_area", "keep", "fill_holes", "tolerance",
	"size", "overlay", "quality", "deadline_ms", "priority", "webhook",
}
