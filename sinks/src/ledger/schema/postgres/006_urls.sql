-- Results are read in the order of URLs, a page at a time. A URL may be longer than what an index row takes.
CREATE INDEX entries_by_url ON entries (tenant, kind, left(url, 500));
