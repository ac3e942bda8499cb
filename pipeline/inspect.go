package pipeline

import "context"

// Header is the content of an encoded picture's header.
type Header struct {
	// Width and Height are the size of the upright picture, in pixels.
	Width, Height int
	MediaType     string
}

// Inspect reads the header of an encoded picture. It returns the errors that
// Segment returns about pictures, as far as the header shows them.
func (s *Segmenter) Inspect(ctx context.Context, image []byte) (Header, error) {
	encoded, err := s.decoder.Open(ctx, image)
	if err != nil {
		return Header{}, ofImage(err)
	}
	defer encoded.Close()
	width, height := encoded.Size()
	return Header{width, height, encoded.MediaType()}, nil
}

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
