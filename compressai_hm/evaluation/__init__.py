"""Codecs as bits against accuracy: from a sweep's config to curves, files and a page.

What was measured flows from top to bottom:

- ``sweep``: codes, decodes, measures and detects; a file for each finished point.
- ``statistics``: curves of the finished points, BD values and intervals.
- ``export``: JSON in CompressAI's schema, CSV, and Markdown.
- ``tables``: the same as text for people.
- ``report``: plots, and an HTML page that needs nothing else.
"""
