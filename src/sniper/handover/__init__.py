"""To other tools and back: detectors of any make in our inference, our detectors in theirs."""
