package main

const greeting = "in all"
