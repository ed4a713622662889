"""One import file: its bytes are read, its headings and cells checked, its errors reported."""
