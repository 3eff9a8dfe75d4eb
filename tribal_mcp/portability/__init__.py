"""What a bundle is: entries, the manifest, the codec, filters and conflict rules. Pure code."""
