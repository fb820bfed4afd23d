"""The Hub's own routes over any `Repositories`: one implementation, which the embedded Hub serves as well.

interfaces    what the routes need to know of repositories: Repositories, Repository, RepositoryFile
routes        the routes over them: metadata, trees, refs, `resolve`
documents     the JSON of the metadata; git: the ids in it
response      responses: content whole, in ranges, gzipped; errors; redirects; content: the bytes
published     the store's models as repositories
"""
