"""Measures codecs as bits against accuracy: from a sweep's config to a page.

The data flow from top to bottom:

- ``sweep``: codes, decodes, measures and detects; writes a file for each point.
- ``statistics``: makes curves of the finished points, BD values and intervals.
- ``result_files``: writes JSON in CompressAI's schema, CSV, and Markdown.
- ``text_tables``: formats the results as text.
- ``report``: writes plots and a self-contained HTML page.
"""
