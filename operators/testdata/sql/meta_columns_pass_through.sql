SELECT _offset, flight, _key FROM flights
