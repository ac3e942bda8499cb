package pipeline

import "context"

// Header is what the header of an encoded picture tells.
type Header struct {
	// Width and Height are those of the upright picture, in pixels.
	Width, Height int
	MediaType     string
}

// Inspect reads the header of an encoded picture. Its errors are those of
// Segment about pictures, as far as the header tells.
func (s *Segmenter) Inspect(ctx context.Context, image []byte) (Header, error) {
	encoded, err := s.decoder.Open(ctx, image)
	if err != nil {
		return Header{}, ofImage(err)
	}
	defer encoded.Close()
	width, height := encoded.Size()
	return Header{width, height, encoded.MediaType()}, nil
}
