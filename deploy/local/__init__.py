"""The local stack: Kafka, the payment provider, a worker and the gateway as child processes.

processes.py   a child process and its pid file: never touch what we did not start
kafka.py       Apache Kafka of one node or three
server.py      a store: mariadb.py, redis.py and mongo.py, a stand-in for MongoDB
debian.py      their programs; maven.py: jars, of Kafka and of the stand-in
provider.py    the payment provider of development; notices.py, camt.py: what it tells
places.py      the files under .local/
parts.py       a child that is kept running
stack.py       all parts and their supervisor
__main__.py    run, up, down, status, wipe
"""
