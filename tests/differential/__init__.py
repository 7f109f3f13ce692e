"""The same command lines through our engine and through Docker's own, compared.

scenarios/     what is done: readable lists of `docker ...` command lines and API requests
scenario.py    their notation
driving.py     does them on one engine
normalise.py   takes out what differs by nature: IDs, times, addresses, paths
transcript.py  what the reference engine answered, as JSON in the repository
right.toml     differences that are right, each with its reason
"""
