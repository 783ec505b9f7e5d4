SELECT flight, md5(carrier) AS m, encode(sha256(carrier), 'hex') AS s FROM flights WHERE flight < 3
