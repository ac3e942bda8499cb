package gateway

import "github.com/refersam/refersam"

// cures says of each problem what whoever meets it can do.
var cures = map[refersam.Code]string{
	refersam.CodeMalformedRequest: "Send the whole body, and in the form that its Content-Type names.",
	refersam.CodeInvalidRequest:   "Correct what `field` or `detail` names; `detail` says what is allowed.",
	refersam.CodeInvalidImage:     "Send the whole, undamaged file; check that it opens in a viewer.",
	refersam.CodeImageTooLarge:    "Send a smaller picture or less at once, or ask for fewer phrases or formats; `detail` says what is too large.",
	refersam.CodeBodyTooSlow:      "Send the whole body without long pauses; on a slow connection send a smaller picture.",
	refersam.CodeUnsupportedMedia: "Send a form, JSON or a picture, not compressed; pictures are JPEG, PNG, WebP, GIF, BMP or TIFF.",
	refersam.CodePhraseEmpty:      "Say what to find, for example “the dog on the left”.",
	refersam.CodePhraseTooLong:    "Say it in fewer words.",
	refersam.CodeUnknownVariant:   "Leave the variant out, or take one that `/v1/models` lists.",
	refersam.CodeJobNotFound:      "Check the id, and use the API key that made the job.",
	refersam.CodeUnfinished:       "Wait for the job's end: look at the job, follow its events, or have it told to a webhook.",
	refersam.CodeItemFailed:       "Look at the item's `problem` in the job, mend what it names, and submit it again.",
	refersam.CodeCancelled:        "Submit the work again if it is wanted after all.",
	refersam.CodeFetchRefused:     "Send the picture itself, and leave the webhook out; or ask whoever runs the service to add the host.",
	refersam.CodeFetchFailed:      "Check that the address gives the picture to anybody, without redirects to other hosts; or send the picture itself.",
	refersam.CodeImageNotFound:    "Send the picture to `/v1/images` again, with the same API key, and use the id that comes back.",
	refersam.CodeNotFound:         "Check the address; `/docs` lists all.",
	refersam.CodeMethodNotAllowed: "Use a method that the `Allow` header lists.",
	refersam.CodeNotAcceptable:    "Send `Accept: application/json`, `image/png`, `application/zip` or `multipart/mixed`, or leave it out.",
	refersam.CodeUnauthorized:     "Send an API key that works, as `Authorization: Bearer rsk_…`; ask whoever runs the service for one.",
	refersam.CodeForbidden:        "Use a key with the scope that `WWW-Authenticate` names. A service without keys is for its own machine and the origins it is set to.",
	refersam.CodeQuotaExceeded:    "Wait for as many seconds as `Retry-After` says, or ask for more.",
	refersam.CodeStorageFull:      "Delete images and jobs, or ask who runs the service for more, as for feedback; to wait helps only once something has expired.",
	refersam.CodeUnderWay:         "Wait for as many seconds as `Retry-After` says, then send the same again.",
	refersam.CodeKeyReused:        "Take a new `Idempotency-Key` for a new request.",
	refersam.CodeOverloaded:       "Wait for as many seconds as `Retry-After` says, then try again.",
	refersam.CodeNotReady:         "Wait for as many seconds as `Retry-After` says, then try again; ask `/readyz` what is missing.",
	refersam.CodeUnavailable:      "Wait for as many seconds as `Retry-After` says, then try again.",
	refersam.CodeUpstream:         "Try again once; if it stays, tell who runs the service the `request_id`.",
	refersam.CodeDeadlineExceeded: "Give more time in `deadline_ms`, or ask for less at once.",
	refersam.CodeInternal:         "Tell who runs the service the `request_id`.",
}
