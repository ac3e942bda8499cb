package pipeline

// Limits are what Segment takes.
type Limits struct {
	// MaxImageBytes is for the encoded picture, MaxImagePixels for its width
	// times its height, MaxImageSide for either, MaxImageFrames for the pictures
	// in its file.
	MaxImageBytes                                int64
	MaxImagePixels, MaxImageSide, MaxImageFrames int
	// MaxPhrases is for one picture, MaxPhraseBytes for one phrase, MaxMaskPixels
	// for the picture's pixels times its phrases.
	MaxPhrases, MaxPhraseBytes, MaxMaskPixels int
}

// Limits are what Segment takes.
func (s *Segmenter) Limits() Limits {
	images := s.decoder.Config()
	return Limits{images.MaxBytes, images.MaxPixels, images.MaxSide, images.MaxFrames, s.cfg.MaxPhrases, s.cfg.MaxPhraseBytes, s.cfg.MaxMaskPixels}
}
