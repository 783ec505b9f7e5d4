SELECT flight, _key AS k, _timestamp AS written, _partition AS p, _offset AS o FROM flights WHERE _offset < 103
